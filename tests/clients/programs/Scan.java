import java.io.FileInputStream;
import java.nio.file.*;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Properties;
import javax.mail.*;
import javax.mail.internet.*;
import javax.net.ssl.*;

class Scan {
    public static void main(String[] arguments) throws Exception {
        trust("ca.pem");
        Properties properties = new Properties();
        // RECIPE
        MimeMessage message = new MimeMessage(session);
        message.setFrom("scanner@example.com");
        message.setRecipients(Message.RecipientType.TO, "someone@example.net");
        message.setSubject("Scan für das Büro", "utf-8");
        MimeBodyPart text = new MimeBodyPart();
        text.setText(Files.readString(Path.of("body.txt")), "utf-8");
        text.setHeader("Content-Transfer-Encoding", "8bit");
        MimeBodyPart attachment = new MimeBodyPart();
        attachment.attachFile("scan.bin", "application/octet-stream", "base64");
        message.setContent(new MimeMultipart(text, attachment));
        try {
            Transport.send(message);
        } catch (MessagingException error) {
            Throwable cause = error;
            while (cause != null) {
                System.out.println(cause);
                cause = cause instanceof MessagingException ? ((MessagingException) cause).getNextException() : null;
            }
            System.exit(1);
        }
    }

    // As if the authority were in Java's trust store, which takes another program to change.
    static void trust(String file) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (FileInputStream pem = new FileInputStream(file)) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, factory.getTrustManagers(), null);
        SSLContext.setDefault(context);
    }
}
