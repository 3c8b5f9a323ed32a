package main

import (
	"debug/buildinfo"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// The binary of the image needs no other file: it is linked statically, and runs where there is nothing else.
func TestStaticBinary(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "godstack")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-tags=timetzdata", "-ldflags=-s", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))

	if runtime.GOOS == "linux" {
		f, err := elf.Open(bin)
		require.NoError(t, err)
		defer f.Close()
		for _, p := range f.Progs {
			require.NotEqual(t, elf.PT_INTERP, p.Type, "it asks for a dynamic linker")
		}
	}
	info, err := buildinfo.ReadFile(bin)
	require.NoError(t, err)
	require.Contains(t, info.Settings, debug.BuildSetting{Key: "-tags", Value: "timetzdata"}, "time zones are inside")
	version := exec.CommandContext(t.Context(), bin, "version")
	version.Dir, version.Env = t.TempDir(), []string{}
	out, err = version.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "godstack")

	t.Run("many sign in at once", func(t *testing.T) { manySignInAtOnce(t, bin) })
}
