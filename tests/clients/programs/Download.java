// Download a URL with one of Java's two clients: `Download LIBRARY URL FILE`. Exit with 0 only if the client sees no fault.
// The file that the environment variable SSL_CERT_FILE names has the certificates to trust.

import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Download {
    public static void main(String[] arguments) throws Exception {
        if (System.getenv("SSL_CERT_FILE") != null) trust(System.getenv("SSL_CERT_FILE"));
        Path file = Path.of(arguments[2]);
        switch (arguments[0]) {
            case "HttpURLConnection" -> withHttpURLConnection(arguments[1], file);
            case "HttpClient" -> withHttpClient(arguments[1], file);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        System.exit(0);
    }

    static void withHttpURLConnection(String url, Path file) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection();
        try (InputStream body = connection.getInputStream()) {
            Files.copy(body, file);
        }
    }

    static void withHttpClient(String url, Path file) throws Exception {
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).build();
        int status = client.send(request, HttpResponse.BodyHandlers.ofFile(file)).statusCode();
        if (status != 200) throw new IOException("status " + status);
    }

    static void trust(String path) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream file = new FileInputStream(path)) {
            store.setCertificateEntry("relay", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, factory.getTrustManagers(), null);
        SSLContext.setDefault(context);
        HttpsURLConnection.setDefaultSSLSocketFactory(context.getSocketFactory());
    }
}
