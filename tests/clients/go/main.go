// Go's net/http, as an agent's tool would use it: each URL in turn, on one client.
//
//	go-client METHOD URL...
//
// Prints a JSON line for each answer.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	client := http.Client{Timeout: 20 * time.Second}
	for _, url := range os.Args[2:] {
		if err := call(&client, os.Args[1], url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func call(client *http.Client, method, url string) error {
	request, err := http.NewRequest(method, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer agents-own")
	request.Header.Set("X-Api-Key", "agents-own-key")
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"status":  answer.StatusCode,
		"body":    string(body),
		"version": answer.Proto,
	})
}
