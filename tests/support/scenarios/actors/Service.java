// SPDX-License-Identifier: Apache-2.0
// A Java service with a hole (/run?c=COMMAND) and with work for many threads (/work?n=THREADS&u=HOST:PORT).
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

public class Service {
    public static void main(String[] arguments) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(arguments[0])), 64);
        server.createContext("/", exchange -> answer(exchange, "well\n"));
        server.createContext("/run", exchange -> answer(exchange, run(query(exchange).get("c"))));
        server.createContext("/work", exchange -> answer(exchange, work(query(exchange))));
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.start();
    }

    static String run(String command) throws IOException {
        Process process = new ProcessBuilder("/bin/sh", "-c", command).redirectErrorStream(true).start();
        process.getOutputStream().close();
        return new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    }

    static String work(Map<String, String> query) {
        String[] peer = query.get("u").split(":");
        var threads = Executors.newFixedThreadPool(Integer.parseInt(query.get("n")));
        for (int each = 0; each < Integer.parseInt(query.get("n")); each++) {
            threads.submit(() -> {
                for (int again = 0; again < 5; again++) {
                    try (Socket socket = new Socket(peer[0], Integer.parseInt(peer[1]))) {
                        socket.getOutputStream().write('x');
                        Thread.sleep((long) (Math.random() * 120));
                    }
                }
                return null;
            });
        }
        threads.shutdown();
        try {
            threads.awaitTermination(10, TimeUnit.SECONDS);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
        return "done\n";
    }

    static Map<String, String> query(HttpExchange exchange) {
        Map<String, String> found = new HashMap<>();
        for (String each : exchange.getRequestURI().getRawQuery().split("&")) {
            String[] pair = each.split("=", 2);
            found.put(pair[0], URLDecoder.decode(pair[1], StandardCharsets.UTF_8));
        }
        return found;
    }

    static void answer(HttpExchange exchange, String text) throws IOException {
        byte[] body = text.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(200, body.length);
        exchange.getResponseBody().write(body);
        exchange.close();
    }
}
