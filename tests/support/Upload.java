import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URI;

/** Uploads so many MiB to a URL with HttpURLConnection, and prints the status. */
public class Upload {
    public static void main(String[] arguments) throws Exception {
        HttpURLConnection upload = (HttpURLConnection) new URI(arguments[0]).toURL().openConnection();
        byte[] mib = new byte[1024 * 1024];
        int count = Integer.parseInt(arguments[1]);
        upload.setRequestMethod("PUT");
        upload.setDoOutput(true);
        upload.setFixedLengthStreamingMode((long) count * mib.length);
        try (OutputStream body = upload.getOutputStream()) {
            for (int sent = 0; sent < count; sent++) {
                body.write(mib);
            }
        }
        System.out.println(upload.getResponseCode());
    }
}
