package main

import (
	"bufio"
	"log/slog"
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
	for _, c := range []struct {
		name    string
		environ []string
		want    config
		wrong   string
	}{
		{
			"defaults", nil,
			config{Addr: "127.0.0.1:8080", Env: development, LogLevel: level(slog.LevelInfo)}, "",
		},
		{
			"empty is default", []string{"DATABASE_URL=", "ADDR=", "PUBLIC_URL=", "ENV=", "LOG_LEVEL="},
			config{Addr: "127.0.0.1:8080", Env: development, LogLevel: level(slog.LevelInfo)}, "",
		},
		{
			"everything", []string{database, "ADDR=:0", "PUBLIC_URL=https://example.com/", "ENV=production", "LOG_LEVEL=WARN", "OTHER=x"},
			config{DatabaseURL: "postgres://localhost/godstack", Addr: ":0", PublicURL: "https://example.com", Env: production, LogLevel: level(slog.LevelWarn)}, "",
		},
		{"ipv6", []string{"ADDR=[::1]:80"}, config{Addr: "[::1]:80", Env: development, LogLevel: level(slog.LevelInfo)}, ""},
		{"production without a database", []string{"ENV=production"}, config{}, "DATABASE_URL: required where ENV is production"},
		{"ENV", []string{"ENV=prod"}, config{}, `ENV: "prod" is neither development nor production`},
		{"LOG_LEVEL", []string{"LOG_LEVEL=loud"}, config{}, `LOG_LEVEL: "loud" is none of debug, info, warn and error`},
		{"ADDR without a port", []string{"ADDR=localhost"}, config{}, `ADDR: "localhost" is no address such as 127.0.0.1:8080`},
		{"ADDR with a wrong port", []string{"ADDR=:http"}, config{}, `ADDR: ":http" is no address such as 127.0.0.1:8080`},
		{"ADDR with a large port", []string{"ADDR=:70000"}, config{}, `ADDR: ":70000" is no address such as 127.0.0.1:8080`},
		{"PUBLIC_URL without a scheme", []string{"PUBLIC_URL=example.com"}, config{}, `PUBLIC_URL: "example.com" is no address such as https://example.com`},
		{"PUBLIC_URL with a path", []string{"PUBLIC_URL=https://example.com/app"}, config{}, `PUBLIC_URL: "https://example.com/app" is no address such as https://example.com`},
		{"PUBLIC_URL of sockets", []string{"PUBLIC_URL=wss://example.com"}, config{}, `PUBLIC_URL: "wss://example.com" is no address such as https://example.com`},
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

func TestTheEnvironmentIsDocumented(t *testing.T) {
	t.Parallel()
	f, err := os.Open("../../.env.example")
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	variable := regexp.MustCompile(`^(# )?([A-Z_]+)=(.*)$`)
	documented := map[string]string{} // name to default
	for s := bufio.NewScanner(f); s.Scan(); {
		if m := variable.FindStringSubmatch(s.Text()); m != nil {
			documented[m[2]] = m[3]
			if m[1] != "" {
				documented[m[2]] = "" // commented out: there is no default
			}
		}
	}
	read := map[string]string{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config]()) {
		name, _, _ := strings.Cut(f.Tag.Get("env"), ",")
		read[name] = f.Tag.Get("envDefault")
	}
	require.Equal(t, read, documented)
}
