package codegen

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// stampFile holds the sum of everything that the last generation read and wrote. It is of this checkout alone, and
// not committed.
const stampFile = ".data/generate.sum"

// inputs are the files and folders that generation reads, and outputs what it writes.
var (
	inputs  = []string{"go.mod", "go.sum", gqlgenFile, "cmd/generate", "internal/codegen", "internal/entity"}
	outputs = []string{entDir, graphDir, migrationsDir}
)

// current reports whether nothing has changed since the last generation.
func current() (bool, error) {
	old, err := os.ReadFile(stampFile)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	sum, err := sumTree()
	return sum == string(old), err
}

// stamp notes the state after a generation.
func stamp() error {
	sum, err := sumTree()
	if err != nil {
		return err
	}
	return writeFile(stampFile, []byte(sum))
}

// sumTree returns a sum over names and contents.
func sumTree() (string, error) {
	h := sha256.New()
	for _, root := range slices.Concat(inputs, outputs) {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if d.IsDir() {
				if d.Name() == "testdata" {
					return fs.SkipDir
				}
				return nil
			}
			if strings.HasSuffix(path, "_test.go") {
				return nil
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "%s %d\n", path, info.Size())
			_, err = io.Copy(h, f)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x\n", h.Sum(nil)), nil
}
