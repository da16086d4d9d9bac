"""What `xoauth2-bench sandbox` adds to the proxy's sandbox: tokens over HTTP, and their faults."""
