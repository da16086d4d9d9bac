# Build: a virtual environment with the wheel in it. Run: that environment and nothing else.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY xoauth2_proxy ./xoauth2_proxy
COPY bench ./bench
RUN python -m venv /opt/xoauth2-proxy \
    && /opt/xoauth2-proxy/bin/pip install --no-cache-dir .

FROM python:3.13-slim
LABEL org.opencontainers.image.title="xoauth2-proxy" \
      org.opencontainers.image.description="SMTP relay: passwords or tokens in, XOAUTH2 out" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 10001 relay \
    && useradd --system --uid 10001 --gid relay --no-create-home --shell /usr/sbin/nologin relay \
    && install -d -o relay -g relay -m 0700 /var/lib/xoauth2-proxy
COPY --from=build /opt/xoauth2-proxy /opt/xoauth2-proxy
ENV PATH="/opt/xoauth2-proxy/bin:$PATH" \
    XOAUTH2_PROXY_CONFIG=/etc/xoauth2-proxy/accounts.json \
    XOAUTH2_PROXY_STATE_DIR=/var/lib/xoauth2-proxy \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
# Configuration is mounted read-only at /etc/xoauth2-proxy; tokens live in the volume.
VOLUME ["/var/lib/xoauth2-proxy"]
EXPOSE 2525
HEALTHCHECK --interval=30s --timeout=6s --start-period=10s --retries=3 \
    CMD ["xoauth2-proxy", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["xoauth2-proxy"]
CMD ["--host", "0.0.0.0", "--log-format", "json"]
