import java.io.ByteArrayInputStream;
import java.io.OutputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;

/**
 * Java's own HTTP client as it comes, which offers HTTP/2 by an upgrade with every request over cleartext.
 *
 * GET URL: print the status to stderr and the body to stdout. PUT URL and PUT-CHUNKED URL: send stdin.
 */
public class OffersHttp2 {
    public static void main(String[] arguments) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(arguments[1]));
        if (!arguments[0].equals("GET")) {
            byte[] body = System.in.readAllBytes();
            request.PUT(arguments[0].equals("PUT")
                ? BodyPublishers.ofByteArray(body)
                : BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body)));
        }
        HttpResponse<byte[]> response = HttpClient.newHttpClient().send(request.build(), BodyHandlers.ofByteArray());
        System.err.println(response.statusCode());
        OutputStream output = System.out;
        output.write(response.body());
        output.flush();
    }
}
