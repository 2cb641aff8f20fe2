# The image holds one static binary, CA certificates, time zones and a user
# that is not root; there is no shell in it.
#
#   docker build -t vedetta .
#   docker run --rm vedetta version
#   docker run -v /etc/vedetta:/etc/vedetta:ro -v /var/log:/var/log:ro --group-add "$(getent group adm | cut -d: -f3)" \
#     -v vedetta:/var/lib/vedetta --network host vedetta

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /root-fs/vedetta ./cmd/vedetta \
 && mkdir -p /root-fs/etc/ssl/certs /root-fs/tmp /root-fs/var/lib/vedetta \
 && cp /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs/ \
 && cp "$(go env GOROOT)/lib/time/zoneinfo.zip" /root-fs/etc/zoneinfo.zip \
 && echo 'nonroot:x:65532:65532:nonroot:/var/lib/vedetta:/sbin/nologin' > /root-fs/etc/passwd \
 && echo 'nonroot:x:65532:' > /root-fs/etc/group \
 && chmod 1777 /root-fs/tmp \
 && chown 65532:65532 /root-fs/var/lib/vedetta

FROM scratch
COPY --from=build /root-fs/ /
ENV ZONEINFO=/etc/zoneinfo.zip
USER 65532:65532
VOLUME /var/lib/vedetta
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["/vedetta", "health"]
ENTRYPOINT ["/vedetta"]
CMD ["serve", "-c", "/etc/vedetta/vedetta.yaml"]
