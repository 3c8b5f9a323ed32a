# The program in an image of its own: one static binary, with the pages and the migrations inside.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# With the time zones, of which scratch has none; TZ names one for the log.
RUN CGO_ENABLED=0 go build -trimpath -tags=timetzdata -ldflags=-s -o /godstack ./cmd/godstack

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /godstack /godstack
USER 65532:65532
# Whoever runs it gives DATABASE_URL, PUBLIC_URL, JWT_KEYS, SECRET_KEYS, SMTP_URL and MAIL_FROM, and TRUSTED_PROXIES behind a proxy:
# docs/configuration.md.
ENV ENV=production ADDR=0.0.0.0:8080
EXPOSE 8080
# Whether it runs, not whether the database does: who starts again what is not healthy would start it in vain.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/godstack", "healthy"]
ENTRYPOINT ["/godstack"]
CMD ["serve"]
