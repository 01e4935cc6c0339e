import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;

/**
 * The JDK's HttpClient, as an agent's tool would use it: each URL in turn, on one client.
 *
 * <pre>java Client METHOD URL...</pre>
 *
 * Prints a JSON line for each answer.
 */
public final class Client {
    private Client() {}

    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(20)).build();
        for (int i = 1; i < arguments.length; i++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[i]))
                    .method(arguments[0], HttpRequest.BodyPublishers.noBody())
                    .header("Authorization", "Bearer agents-own")
                    .header("X-Api-Key", "agents-own-key")
                    .timeout(Duration.ofSeconds(20))
                    .build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.printf("{\"status\":%d,\"version\":\"%s\",\"body\":%s}%n",
                    answer.statusCode(), answer.version(), quoted(answer.body()));
        }
    }

    private static String quoted(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < ' ') {
                quoted.append(String.format("\\u%04x", (int) c));
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }
}
