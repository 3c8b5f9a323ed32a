package codegen

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// syncEnt brings what ent generated in from over to the folder to: pruned, only where that changes a file, and
// without what was generated for entities that are gone. Hand-written files stay.
func syncEnt(from, to string) error {
	var (
		g   errgroup.Group
		new = map[string]bool{}
	)
	g.SetLimit(4)
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if unusedFile(rel) {
			return nil
		}
		new[rel] = true
		g.Go(func() error {
			src, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if src, err = prune(rel, src); err != nil {
				return err
			}
			return writeFile(filepath.Join(to, rel), src)
		})
		return nil
	})
	if err := errors.Join(err, g.Wait()); err != nil {
		return err
	}
	return removeStale(to, func(rel string) bool { return new[rel] })
}

// unusedFile reports whether a file of ent's is for ways that are not gone here: tables come from migrations, tests
// have databases of their own.
func unusedFile(rel string) bool {
	return strings.HasPrefix(rel, "enttest"+string(filepath.Separator)) || strings.HasPrefix(rel, "migrate"+string(filepath.Separator))
}

// removeStale removes the generated Go files below dir, and the folders that they leave empty, unless keep says to
// keep one.
func removeStale(dir string, keep func(rel string) bool) error {
	var folders []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			folders = append(folders, path)
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || filepath.Ext(path) != ".go" || keep(rel) {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || !generated(b) {
			return err
		}
		return os.Remove(path)
	})
	for i := len(folders) - 1; i > 0; i-- {
		_ = os.Remove(folders[i]) // fails, rightly, where something is left
	}
	return err
}

// generated reports whether a Go file says that it is.
func generated(src []byte) bool {
	first, _, _ := bytes.Cut(src, []byte("\n"))
	return bytes.HasPrefix(first, []byte("// Code generated ")) && bytes.HasSuffix(bytes.TrimSpace(first), []byte("DO NOT EDIT."))
}
