# Runs as the CLI of a sandbox: tries each way out, shows what a program learns of the end user, then
# opens a page that tries to call it and goes on to one of its own, whose title the provider file knows.
import http.server, locale, os, socket, ssl, subprocess, time

def tried(what, act):
    try:
        print(f"probe {what}: {act()}", flush=True)
    except OSError as error:
        print(f"probe {what}: {type(error).__name__}", flush=True)

def ask(host, port):
    """By the system's own names and routes, as a program does that knows no proxy."""
    with socket.create_connection((host, port), 20) as connection:
        connection.sendall(f"GET / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        return connection.recv(64).decode()

def fronted(host, name):
    """By TLS, to one host in the name of another."""
    with socket.create_connection((host, 443), 20) as connection:
        try:
            ssl.create_default_context().wrap_socket(connection, server_hostname=name)
        except ssl.SSLError as error:
            return error.reason

def datagram(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(5)
        datagrams.connect((socket.gethostbyname(host), port))
        datagrams.send(b"ping")
        return datagrams.recv(64)

tried("mapped", lambda: ask("echo.example.com", 80))
tried("wildcard", lambda: ask("deep.down.example.org", 80))
tried("fronted", lambda: fronted("echo.example.com", "evil.example.net"))
tried("no TLS", lambda: ask("echo.example.com", 443))
tried("other host", lambda: ask("evil.example.net", 443))
tried("other port", lambda: ask("echo.example.com", 22))
tried("address", lambda: ask("192.0.2.7", 443))
tried("quic", lambda: datagram("echo.example.com", 443))
tried("name", lambda: socket.gethostbyname("printer.local"))
print("probe person:", os.environ.get("LANG"), os.environ.get("TZ"), time.tzname[0], flush=True)
# What a fresh desktop has.
machine = open("/etc/machine-id").read().strip()
same = machine == open("/var/lib/dbus/machine-id").read().strip()
print("probe machine:", machine if same else "two ids", flush=True)
locale.setlocale(locale.LC_ALL, "")
of_the_c_library = subprocess.run(["locale", "charmap"], capture_output=True, text=True)
perl = subprocess.run(["perl", "-e", "1"], capture_output=True, text=True).stderr
print("probe letters:", locale.nl_langinfo(locale.CODESET), of_the_c_library.stdout.strip(),
      of_the_c_library.stderr + perl or "without a word", flush=True)
# The session's authority, by the system's own store and no variable.
without = {"env": {"PATH": os.environ["PATH"]}, "capture_output": True, "text": True}
ours = "/etc/ssl/certs/anteroom-session-0.pem"
by_hash = subprocess.run(["openssl", "verify", "-CApath", "/etc/ssl/certs", ours], **without)
count = "import ssl; print(any('Anteroom' in str(c) for c in ssl.create_default_context().get_ca_certs()))"
bundle = subprocess.run(["python3", "-c", count], **without)
print("probe authority:", by_hash.stdout.split()[-1:], bundle.stdout.strip(), flush=True)
print("\x1b]0;evil title\x07\x1b]52;c;ZXZpbA==\x07\x1b[31mred\x1b[0m", flush=True)

PAGE = b"""<title>-</title><script>
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const passkeys = 'PublicKeyCredential' in window ? 'with' : 'without';
const from = location.search.slice(1);
document.title = `${navigator.language} ${zone} ${passkeys} passkeys, ${from}: Couldn't sign you in`;
</script>This browser or app may not be secure."""

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/cancel"):
            print("probe was called by a page", flush=True)
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_):
        pass

# Threads: a page that may not call it leaves a connection behind that asks for nothing.
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
subprocess.run(["xdg-open", f"http://page.example.org/?{server.server_port}"])
server.serve_forever()
