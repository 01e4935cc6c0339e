//go:build tools

// Package tools keeps in go.mod what `cargo xtask cluster build` builds from it.
package tools

import (
	_ "sigs.k8s.io/agent-sandbox/cmd/agent-sandbox-controller"
)
