package main

import (
	"bufio"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheEnvironment(t *testing.T) {
	t.Parallel()
	const database = "DATABASE_URL=postgres://localhost/godstack"
	defaults := config{
		Addr: "127.0.0.1:8080", Env: development, LogLevel: level(slog.LevelInfo), TokenStorage: "header", RateLimit: 1200,
	}
	other := defaults
	other.Addr = "[::1]:80"
	open, local := defaults, defaults
	open.Addr, open.PublicURL = ":8080", "https://example.com"
	local.Addr, local.PublicURL = "localhost:80", "http://[::1]:8080"
	const (
		sayENV      = ": say production, or development, which has keys of its own and shows the API's schema"
		noDatabase  = "no address such as postgres://user:password@localhost:5432/godstack?sslmode=require, with %40 for an @ in the password"
		noCollector = "no address such as http://localhost:4318, without a password"
		noPairs     = "no list such as key=value,key2=value2, with %20 for a space"
		noRedis     = "no address such as redis://user:password@localhost:6379/0, with %40 for an @ in the password"
	)
	for _, c := range []struct {
		name    string
		environ []string
		want    config
		wrong   string
	}{
		{"defaults", nil, defaults, ""},
		{
			"empty is default", []string{
				"DATABASE_URL=", "ADDR=", "PUBLIC_URL=", "ENV=", "LOG_LEVEL=", "JWT_KEYS=", "SECRET_KEYS=", "AUTH_TOKEN_STORAGE=",
				"AUTH_VERIFY_EMAIL=", "ALLOWED_ORIGINS=", "TRUSTED_PROXIES=", "REDIS_URL=", "RATE_LIMIT=",
			}, defaults, "",
		},
		{
			"everything", []string{
				database, "ADDR=:0", "PUBLIC_URL=https://example.com/", "ENV=production", "LOG_LEVEL=WARN",
				"JWT_KEYS=" + testJWTKeys, "SECRET_KEYS=" + testSecretKeys, "AUTH_TOKEN_STORAGE=cookie", "AUTH_VERIFY_EMAIL=optional",
				"ALLOWED_ORIGINS=https://app.example.com, http://localhost:3000/", "TRUSTED_PROXIES=10.1.2.3/8, ::1",
				"REDIS_URL=redis://localhost", "RATE_LIMIT=0", "OTHER=x",
			},
			config{
				DatabaseURL: "postgres://localhost/godstack", Addr: ":0", PublicURL: "https://example.com", Env: production, LogLevel: level(slog.LevelWarn),
				JWTKeys: jwtKeys(testJWTKeys), SecretKeys: secretKeys(testSecretKeys), TokenStorage: "cookie", VerifyEmail: "optional",
				AllowedOrigins: []origin{"https://app.example.com", "http://localhost:3000"},
				TrustedProxies: []network{network(netip.MustParsePrefix("10.0.0.0/8")), network(netip.MustParsePrefix("::1/128"))},
				RedisURL:       "redis://localhost", RateLimit: -1,
			}, "",
		},
		{"ipv6", []string{"ADDR=[::1]:80"}, other, ""},
		{"production without a database", []string{"ENV=production"}, config{}, "DATABASE_URL: required where ENV is production"},
		{"DATABASE_URL", []string{"DATABASE_URL=postgres://ada:plover/xylem@localhost/godstack"}, config{}, "DATABASE_URL: " + noDatabase},
		{"DATABASE_URL with an @ in the password", []string{"DATABASE_URL=postgres://ada:plover@xylem:42@x:y/"}, config{}, "DATABASE_URL: " + noDatabase},
		{"DATABASE_URL of words", []string{"DATABASE_URL=host=localhost password='plover xylem"}, config{}, "DATABASE_URL: " + noDatabase},
		{"DATABASE_URL without its certificate", []string{"DATABASE_URL=postgres://localhost/x?sslmode=verify-full&sslrootcert=/nothing"}, config{}, "DATABASE_URL: open /nothing: no such file or directory"},
		{"REDIS_URL", []string{"REDIS_URL=redis://ada:plover/xylem@localhost:6379"}, config{}, "REDIS_URL: " + noRedis},
		{"REDIS_URL with a %", []string{"REDIS_URL=redis://ada:plover%zz@localhost:6379"}, config{}, "REDIS_URL: " + noRedis},
		{"REDIS_URL without a scheme", []string{"REDIS_URL=localhost:6379"}, config{}, "REDIS_URL: " + noRedis},
		{"all addresses", []string{"ADDR=:8080"}, config{}, "ENV: required where others reach the program, and ADDR is :8080" + sayENV},
		{"all addresses by name", []string{"ADDR=0.0.0.0:8080", "ENV="}, config{}, "ENV: required where others reach the program, and ADDR is 0.0.0.0:8080" + sayENV},
		{"a host", []string{"ADDR=db.example.com:8080"}, config{}, "ENV: required where others reach the program, and ADDR is db.example.com:8080" + sayENV},
		{"a public address", []string{"PUBLIC_URL=https://example.com"}, config{}, "ENV: required where others reach the program, and PUBLIC_URL is https://example.com" + sayENV},
		{"all addresses in development", []string{"ADDR=:8080", "PUBLIC_URL=https://example.com", "ENV=development"}, open, ""},
		{"a local public address", []string{"ADDR=localhost:80", "PUBLIC_URL=http://[::1]:8080"}, local, ""},
		{"ENV", []string{"ENV=prod"}, config{}, `ENV: "prod" is neither development nor production`},
		{"LOG_LEVEL", []string{"LOG_LEVEL=loud"}, config{}, `LOG_LEVEL: "loud" is none of debug, info, warn and error`},
		{"ADDR without a port", []string{"ADDR=localhost"}, config{}, `ADDR: "localhost" is no address such as 127.0.0.1:8080`},
		{"ADDR with a wrong port", []string{"ADDR=:http"}, config{}, `ADDR: ":http" is no address such as 127.0.0.1:8080`},
		{"ADDR with a large port", []string{"ADDR=:70000"}, config{}, `ADDR: ":70000" is no address such as 127.0.0.1:8080`},
		{"PUBLIC_URL without a scheme", []string{"PUBLIC_URL=example.com"}, config{}, `PUBLIC_URL: "example.com" is no address such as https://example.com`},
		{"PUBLIC_URL with a path", []string{"PUBLIC_URL=https://example.com/app"}, config{}, `PUBLIC_URL: "https://example.com/app" is no address such as https://example.com`},
		{"PUBLIC_URL of sockets", []string{"PUBLIC_URL=wss://example.com"}, config{}, `PUBLIC_URL: "wss://example.com" is no address such as https://example.com`},
		{"AUTH_TOKEN_STORAGE", []string{"AUTH_TOKEN_STORAGE=disk"}, config{}, `AUTH_TOKEN_STORAGE: "disk" is none of header, cookie and both`},
		{"AUTH_VERIFY_EMAIL", []string{"AUTH_VERIFY_EMAIL=no"}, config{}, `AUTH_VERIFY_EMAIL: "no" is neither required nor optional`},
		{"ALLOWED_ORIGINS", []string{"ALLOWED_ORIGINS=https://a.example,*"}, config{}, `ALLOWED_ORIGINS: "*" is no address such as https://example.com`},
		{"TRUSTED_PROXIES", []string{"TRUSTED_PROXIES=::1,proxy"}, config{}, `TRUSTED_PROXIES: "proxy" is no network such as 10.0.0.0/8`},
		{"TRUSTED_PROXIES of IPv4 as IPv6", []string{"TRUSTED_PROXIES=::ffff:10.0.0.1"}, config{}, `TRUSTED_PROXIES: "::ffff:10.0.0.1" is no network such as 10.0.0.0/8`},
		{"TRUSTED_PROXIES of IPv4 as IPv6, a network", []string{"TRUSTED_PROXIES=::ffff:10.0.0.0/104"}, config{}, `TRUSTED_PROXIES: "::ffff:10.0.0.0/104" is no network such as 10.0.0.0/8`},
		{"OTEL_TRACES_EXPORTER", []string{"OTEL_TRACES_EXPORTER=jaeger"}, config{}, `OTEL_TRACES_EXPORTER: "jaeger" is neither otlp nor none`},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=localhost:4318"}, config{}, "OTEL_EXPORTER_OTLP_ENDPOINT: " + noCollector},
		{"OTEL_EXPORTER_OTLP_ENDPOINT with a password", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://ada:plover@localhost"}, config{}, "OTEL_EXPORTER_OTLP_ENDPOINT: " + noCollector},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=x"}, config{}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: " + noCollector},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", []string{"OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, config{}, `OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" is not http/protobuf, which is all there is`},
		{"OTEL_EXPORTER_OTLP_HEADERS", []string{"OTEL_EXPORTER_OTLP_HEADERS=plover"}, config{}, "OTEL_EXPORTER_OTLP_HEADERS: " + noPairs},
		{"OTEL_RESOURCE_ATTRIBUTES", []string{"OTEL_RESOURCE_ATTRIBUTES=a=%zz"}, config{}, "OTEL_RESOURCE_ATTRIBUTES: " + noPairs},
		{"OTEL_TRACES_SAMPLER", []string{"OTEL_TRACES_SAMPLER=some"}, config{}, `OTEL_TRACES_SAMPLER: "some" is none of always_on, always_off and traceidratio, nor parentbased_ and one of them`},
		{"OTEL_TRACES_SAMPLER_ARG", []string{"OTEL_TRACES_SAMPLER_ARG=2"}, config{}, `OTEL_TRACES_SAMPLER_ARG: "2" is no number from 0 to 1`},
		{"OTEL_TRACES_SAMPLER_ARG that is none", []string{"OTEL_TRACES_SAMPLER_ARG=NaN"}, config{}, `OTEL_TRACES_SAMPLER_ARG: "NaN" is no number from 0 to 1`},
		{"all at once", []string{"ENV=x", "LOG_LEVEL=y"}, config{}, "ENV: \"x\" is neither development nor production\nLOG_LEVEL: \"y\" is none of debug, info, warn and error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := loadConfig(c.environ)
			if c.wrong != "" {
				require.EqualError(t, err, c.wrong)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

// 0 switches off what may be off, and is refused elsewhere, as whatever else is no number: nothing stands for the default but nothing.
func TestNumbers(t *testing.T) {
	t.Parallel()
	type numbers struct{ rate, perUser, perAddress, operations, messageRate, messageBytes, writeBuffer int }
	of := func(c config) numbers {
		a := c.app(nil)
		s := a.Server.Sockets
		return numbers{a.RateLimit, s.PerUser, s.PerAddress, s.Operations, s.MessageRate, s.MessageSize, s.WriteBuffer}
	}
	const may, must = "no whole number from 0, which is no limit, to 50000000", "no whole number from 1 to 50000000; there is always a limit"
	for name, c := range map[string]struct {
		got   func(numbers) int
		unset int // 0: the server's default
		off   int // 0: it cannot be
		says  string
	}{
		"RATE_LIMIT":           {func(n numbers) int { return n.rate }, 1200, -1, may},
		"SOCKETS_PER_USER":     {func(n numbers) int { return n.perUser }, 0, -1, may},
		"SOCKETS_PER_ADDRESS":  {func(n numbers) int { return n.perAddress }, 0, -1, may},
		"SOCKET_OPERATIONS":    {func(n numbers) int { return n.operations }, 0, 0, must},
		"SOCKET_MESSAGE_RATE":  {func(n numbers) int { return n.messageRate }, 0, 0, must},
		"SOCKET_MESSAGE_BYTES": {func(n numbers) int { return n.messageBytes }, 0, 0, must},
		"SOCKET_WRITE_BUFFER":  {func(n numbers) int { return n.writeBuffer }, 0, 0, must},
	} {
		for text, want := range map[string]int{"": c.unset, "1": 1, "70000": 70000, "50000000": 50_000_000} {
			got, err := loadConfig([]string{name + "=" + text})
			require.NoError(t, err, name)
			require.Equal(t, want, c.got(of(got)), "%s=%s", name, text)
		}
		wrong := []string{"-1", "many", "1.5", "1e3", "50000001", "99999999999999999999", " 1", "1 ", "+1", "0x10", "1_000"}
		if c.off == 0 {
			wrong = append(wrong, "0")
		} else {
			got, err := loadConfig([]string{name + "=0"})
			require.NoError(t, err, name)
			require.Equal(t, c.off, c.got(of(got)), name)
		}
		for _, text := range wrong {
			_, err := loadConfig([]string{name + "=" + text})
			require.EqualError(t, err, fmt.Sprintf("%s: %q is %s", name, text, c.says))
		}
	}
}

// What the struct reads, .env.example and docs/configuration.md list, with the same defaults.
func TestTheEnvironmentIsDocumented(t *testing.T) {
	t.Parallel()
	read := map[string]string{} // name to default
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config]()) {
		name, _, _ := strings.Cut(f.Tag.Get("env"), ",")
		read[name] = f.Tag.Get("envDefault")
	}
	example := map[string]string{}
	for _, m := range lines(t, "../../.env.example", `^(# )?([A-Z_]+)=(.*)$`) {
		example[m[2]] = m[3]
		if m[1] != "" {
			example[m[2]] = "" // commented out: there is no default
		}
	}
	require.Equal(t, read, example)

	documented := map[string]string{}
	for _, m := range lines(t, "../../docs/configuration.md", "^\\| `([A-Z_]+)` \\| (?:`([^`|]*)`)?[^|]*\\| .+ \\|$") {
		documented[m[1]] = m[2]
	}
	require.Equal(t, read, documented)
}

// lines returns the matches of a pattern in a file's lines.
func lines(t *testing.T, file, pattern string) (matches [][]string) {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	re := regexp.MustCompile(pattern)
	for s := bufio.NewScanner(f); s.Scan(); {
		if m := re.FindStringSubmatch(s.Text()); m != nil {
			matches = append(matches, m)
		}
	}
	return matches
}
