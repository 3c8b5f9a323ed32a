package main

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// deployed is a container of the program in a file below deploy.
type deployed struct {
	file string
	args []string
}

// TestDeployedCommands parses each command line in deploy, in pages about it and in the image as the program does.
func TestDeployedCommands(t *testing.T) {
	t.Parallel()
	lines := map[string]bool{}
	for _, d := range containers(t) {
		lines[strings.Join(d.args, " ")] = true
		cmd, rest, err := command(nil).Find(d.args)
		require.NoError(t, err, d)
		require.True(t, cmd.Runnable(), d)
		require.NoError(t, cmd.ParseFlags(rest), d)
		require.NoError(t, cmd.ValidateArgs(cmd.Flags().Args()), d)
		require.NoError(t, cmd.ValidateRequiredFlags(), d)
	}
	for _, line := range []string{"serve", "serve --no-work", "work", "migrate", "doctor", "healthy", "healthy --ready", "healthy --addr 127.0.0.1:9090 --ready"} {
		require.Contains(t, lines, line)
	}
}

// containers finds what runs the program: services and objects with its image, health checks, the unit, and what pages say.
func containers(t *testing.T) (found []deployed) {
	t.Helper()
	var walk func(file string, v any)
	walk = func(file string, v any) {
		switch v := v.(type) {
		case map[string]any:
			image, _ := v["image"].(string)
			for _, key := range []string{"args", "command"} {
				args, ok := v[key].([]any)
				if _, other := v["image"]; ok && (!other || strings.Contains(image, "godstack")) { // one that is merged has none of its own
					found = append(found, deployed{file, texts(args)})
				}
			}
			if test, ok := v["test"].([]any); ok && len(test) > 2 && test[1] == "/godstack" {
				found = append(found, deployed{file, texts(test[2:])})
			}
			for _, key := range slices.Sorted(maps.Keys(v)) {
				walk(file, v[key])
			}
		case []any:
			for _, each := range v {
				walk(file, each)
			}
		}
	}
	for file, text := range deployFiles(t) {
		switch {
		case strings.HasSuffix(file, ".yaml"):
			for documents := yaml.NewDecoder(bytes.NewReader(text)); ; {
				var tree any
				err := documents.Decode(&tree)
				if errors.Is(err, io.EOF) {
					break
				}
				require.NoError(t, err, file)
				walk(file, tree)
			}
		case strings.HasSuffix(file, "Dockerfile"):
			for _, m := range regexp.MustCompile(`(?m)CMD \[(.*)\]$`).FindAllSubmatch(text, -1) {
				args := strings.Split(strings.ReplaceAll(string(m[1]), `"`, ""), ", ")
				found = append(found, deployed{file, slices.DeleteFunc(args, func(s string) bool { return s == "/godstack" })})
			}
		default: // the unit, and pages: a command stands at the begin of a line, or after what runs it
			for _, m := range regexp.MustCompile(`(?m)(?:^ExecStart\w*=/usr/local/bin/|^ {4,}(?:docker compose .*/|kubectl .* -- /)?)godstack ([a-z][^<|#\n]*?) *(?:[<|#].*)?$`).FindAllSubmatch(text, -1) {
				found = append(found, deployed{file, strings.Fields(string(m[1]))})
			}
		}
	}
	return found
}

func texts(values []any) (all []string) {
	for _, v := range values {
		all = append(all, v.(string))
	}
	return all
}

// deployFiles are those that say how the program is run.
func deployFiles(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, pattern := range []string{"Dockerfile", "deploy/compose.yaml", "deploy/kubernetes/*.yaml", "deploy/godstack.service", "docs/deploying.md"} {
		paths, err := filepath.Glob(filepath.Join("../..", pattern))
		require.NoError(t, err)
		require.NotEmpty(t, paths, pattern)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			files[path] = text
		}
	}
	return files
}

// TestDeployedSettings loads the settings of the Kubernetes manifests as the program does. Each is one that it knows; with keys in place of
// the example's, and the database's address, nothing is wrong; and with the example's, it does not start.
func TestDeployedSettings(t *testing.T) {
	t.Parallel()
	read := func(file string, v any) {
		text, err := os.ReadFile("../../deploy/kubernetes/" + file)
		require.NoError(t, err)
		require.NoError(t, yaml.Unmarshal(text, v))
	}
	var k struct {
		ConfigMapGenerator []struct{ Literals []string } `yaml:"configMapGenerator"`
	}
	var secret struct {
		StringData map[string]string `yaml:"stringData"`
	}
	read("kustomization.yaml", &k)
	read("secret.example.yaml", &secret)
	environ := slices.Concat([]string{"ENV=production", "ADDR=0.0.0.0:8080"}, k.ConfigMapGenerator[0].Literals) // the image says the first two
	example := slices.Clone(environ)
	for name, value := range secret.StringData {
		example = append(example, name+"="+value)
		switch name {
		case "JWT_KEYS":
			value = testJWTKeys
		case "SECRET_KEYS":
			value = testSecretKeys
		}
		environ = append(environ, name+"="+value)
	}
	known := map[string]bool{}
	for field := range reflect.TypeFor[config]().Fields() {
		known[field.Tag.Get("env")] = true
	}
	for _, pair := range environ {
		name, _, _ := strings.Cut(pair, "=")
		require.True(t, known[name], "%s is no setting", name)
	}
	cfg, err := loadConfig(environ)
	require.NoError(t, err)
	require.Equal(t, production, cfg.Env)
	require.NotEmpty(t, cfg.TrustedProxies)
	require.NotEmpty(t, cfg.MailFrom)
	_, err = loadConfig(example)
	require.ErrorContains(t, err, "JWT_KEYS")
	require.ErrorContains(t, err, "SECRET_KEYS", "nobody runs with the keys of an example")
}
