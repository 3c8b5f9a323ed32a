package godstack_test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"godstack/internal/auth"
)

// deployed is what the files in deploy have to agree with.
type deployed struct {
	port       string   // of the image
	entrypoint string   // likewise
	healthy    string   // the command that its health check is
	commands   []string // of the program
	routes     []string // that GET finds
	shutdown   time.Duration
	documented []string // variables
	required   []string // those that production does not start without
}

func setupDeployed(t *testing.T) deployed {
	t.Helper()
	all := func(file, pattern string) (found []string) {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`(?m)`+pattern).FindAllStringSubmatch(string(b), -1) {
			found = append(found, m[1])
		}
		require.NotEmpty(t, found, "%s: %s", file, pattern)
		return found
	}
	seconds, err := strconv.Atoi(all("internal/server/server.go", `DefaultShutdownTimeout\s+= (\d+) \* time\.Second$`)[0])
	require.NoError(t, err)
	d := deployed{
		port:       all("Dockerfile", `^EXPOSE (\d+)$`)[0],
		entrypoint: all("Dockerfile", `^ENTRYPOINT \["(.+)"\]$`)[0],
		healthy:    all("Dockerfile", `^HEALTHCHECK .* CMD \["/godstack", "(.+)"\]$`)[0],
		commands:   all("docs/configuration.md", `^    godstack ([a-z]+)\b`),
		routes:     all("internal/server/server.go", `HandleFunc\("GET (/\w+)"`),
		shutdown:   time.Duration(seconds) * time.Second,
		documented: all("docs/configuration.md", "^\\| `([A-Z_]+)` \\|"),
		required:   all("docs/configuration.md", "^\\| `([A-Z_]+)` \\|.* Required in production"),
	}
	require.Equal(t, []string{"DATABASE_URL", "PUBLIC_URL", "JWT_KEYS", "SECRET_KEYS", "SMTP_URL"}, d.required)
	require.Equal(t, []string{"0.0.0.0:" + d.port}, all("Dockerfile", `^ENV ENV=production ADDR=(\S+)$`))
	require.Equal(t, "/godstack", d.entrypoint)
	require.Contains(t, d.commands, d.healthy)
	return d
}

// checkEnvironment holds that a node's variables are the program's, with all that it needs.
func (d deployed) checkEnvironment(t *testing.T, names []string) {
	t.Helper()
	require.Subset(t, d.documented, names)
	require.Subset(t, names, d.required)
	require.Contains(t, names, "TRUSTED_PROXIES", "there is a proxy")
	require.Contains(t, names, "MAIL_FROM", "mail is sent")
}

// read reads a YAML file of one document. Names of fields are as in JSON: case does not count.
func read[T any](t *testing.T, file string) (v T) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	d := yaml.NewDecoder(bytes.NewReader(text))
	var tree any
	require.NoError(t, d.Decode(&tree), file)
	require.ErrorIs(t, d.Decode(new(any)), io.EOF, file)
	b, err := json.Marshal(tree)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &v), file)
	return v
}

type composeFile struct {
	Services map[string]struct {
		Image, Build string
		Command      []string
		Environment  map[string]string
		Volumes      []string
		StopGrace    string `json:"stop_grace_period"`
		Healthcheck  struct{ Test []string }
		DependsOn    json.RawMessage `json:"depends_on"`
		Networks     struct {
			Default struct {
				Address string `json:"ipv4_address"`
			}
		}
	}
}

var interpolation = regexp.MustCompile(`\$\{([A-Z_]+)(:[-?])?([^}]*)\}`)

// TestCompose holds that deploy/compose.yaml fits the program, its image and the load balancer's file.
func TestCompose(t *testing.T) {
	t.Parallel()
	d := setupDeployed(t)
	c := read[composeFile](t, "deploy/compose.yaml")
	env := makeEnv(t)
	proxy, err := os.ReadFile("deploy/Caddyfile")
	require.NoError(t, err)

	var nodes, builds []string
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		s := c.Services[name]
		for key, value := range s.Environment {
			for _, m := range interpolation.FindAllStringSubmatch(value, -1) {
				require.True(t, m[2] == ":-" || env[m[1]] != "", "%s: %s of %s, which deploy/make-env does not write", name, m[1], key)
			}
		}
		if s.Build != "" {
			builds = append(builds, name)
			require.FileExists(t, filepath.Join("deploy", s.Build, "Dockerfile"))
		}
		var dependencies map[string]struct{ Condition string }
		if bytes.HasPrefix(s.DependsOn, []byte("{")) {
			require.NoError(t, json.Unmarshal(s.DependsOn, &dependencies))
		}
		for on, how := range dependencies {
			require.Contains(t, c.Services, on)
			if how.Condition == "service_healthy" {
				require.NotEmpty(t, c.Services[on].Healthcheck.Test, "%s waits for the health of %s", name, on)
			}
		}
		if s.Image != c.Services["migrate"].Image {
			continue
		}
		d.checkEnvironment(t, slices.Collect(maps.Keys(s.Environment)))
		require.Equal(t, c.Services["proxy"].Networks.Default.Address, s.Environment["TRUSTED_PROXIES"])
		require.Equal(t, c.Services["migrate"].Environment, s.Environment)
		require.Contains(t, d.commands, s.Command[0])
		if s.Command[0] == "serve" {
			require.Equal(t, []string{"serve", "--no-work"}, s.Command)
			nodes = append(nodes, name+":"+d.port)
			grace, err := time.ParseDuration(s.StopGrace)
			require.NoError(t, err)
			require.Greater(t, grace, d.shutdown)
			require.Equal(t, "service_completed_successfully", dependencies["migrate"].Condition)
			require.Equal(t, []string{"CMD", d.entrypoint, d.healthy, "--ready"}, s.Healthcheck.Test)
		}
	}
	require.Len(t, nodes, 2)
	require.Equal(t, []string{"migrate"}, builds, "several that build one image at the same time get in each other's way")

	require.Contains(t, string(proxy), "reverse_proxy "+strings.Join(nodes, " ")+" {\n")
	probe := regexp.MustCompile(`health_uri (\S+)`).FindSubmatch(proxy)
	require.NotNil(t, probe)
	require.Contains(t, d.routes, string(probe[1]))
	require.Contains(t, c.Services["proxy"].Volumes, "./Caddyfile:/etc/caddy/Caddyfile:ro")
	for _, m := range regexp.MustCompile(`\{\$(\w+)\}`).FindAllSubmatch(proxy, -1) {
		require.Contains(t, c.Services["proxy"].Environment, string(m[1]))
	}
}

// makeEnv runs deploy/make-env in a folder of its own and returns what it has written.
func makeEnv(t *testing.T) map[string]string {
	t.Helper()
	script, err := os.ReadFile("deploy/make-env")
	require.NoError(t, err)
	dir := t.TempDir()
	file := filepath.Join(dir, ".env")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "make-env"), script, 0o600))
	out, err := exec.CommandContext(t.Context(), "sh", filepath.Join(dir, "make-env")).CombinedOutput()
	require.NoError(t, err, string(out))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Error(t, exec.CommandContext(t.Context(), "sh", filepath.Join(dir, "make-env")).Run(), "what is there stays")
	again, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(text), string(again))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	env := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			env[name] = value
		}
	}
	return env
}

// TestMakeEnv holds that the program takes the keys of deploy/make-env.
func TestMakeEnv(t *testing.T) {
	t.Parallel()
	env, other := makeEnv(t), makeEnv(t)
	_, err := auth.ParseKeys(env["JWT_KEYS"], "issuer", "audience")
	require.NoError(t, err)
	_, err = auth.ParseSecrets(env["SECRET_KEYS"])
	require.NoError(t, err)
	require.Equal(t, url.QueryEscape(env["POSTGRES_PASSWORD"]), env["POSTGRES_PASSWORD"], "it stands in a URL")
	for _, name := range []string{"JWT_KEYS", "SECRET_KEYS", "POSTGRES_PASSWORD"} {
		require.NotEqual(t, env[name], other[name])
	}
}

// TestUnit holds that the unit for systemd runs commands of the program, and gives it the time to end.
func TestUnit(t *testing.T) {
	t.Parallel()
	d := setupDeployed(t)
	unit, err := os.ReadFile("deploy/godstack.service")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?m)^ExecStart\w*=/usr/local/bin/godstack (\w+)$`).FindAllSubmatch(unit, -1) {
		require.Contains(t, d.commands, string(m[1]))
	}
	m := regexp.MustCompile(`(?m)^TimeoutStopSec=(\w+)$`).FindSubmatch(unit)
	require.NotNil(t, m)
	grace, err := time.ParseDuration(string(m[1]))
	require.NoError(t, err)
	require.Greater(t, grace, d.shutdown)
	page, err := os.ReadFile("docs/deploying.md")
	require.NoError(t, err)
	_, example, ok := strings.Cut(string(page), "`/etc/godstack.env`")
	require.True(t, ok)
	example, _, _ = strings.Cut(example, "\n3. ")
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^ +([A-Z_]+)=`).FindAllStringSubmatch(example, -1) {
		names = append(names, m[1])
	}
	d.checkEnvironment(t, names)
	require.Contains(t, names, "ENV", "elsewhere the image says it")
}
