package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"godstack/internal/auth"
)

// secretsFile is where development keeps what it made up, below DataDir.
const secretsFile = "secrets.json"

// secrets is the form of that file.
type secrets struct {
	JWTKeys    string `json:"jwtKeys"`
	SecretKeys string `json:"secretKeys"`
}

// withSecrets fills in, in development, the keys that the configuration leaves out: those that an earlier start made, so
// that a restart signs nobody out.
func (c Config) withSecrets() (Config, error) {
	if c.JWTKeys != "" && c.SecretKeys != "" {
		return c, nil
	}
	if !c.Development {
		var missing []error
		if c.JWTKeys == "" {
			missing = append(missing, errors.New("JWT_KEYS: required in production"))
		}
		if c.SecretKeys == "" {
			missing = append(missing, errors.New("SECRET_KEYS: required in production"))
		}
		return c, errors.Join(missing...)
	}
	file := filepath.Join(c.DataDir, secretsFile)
	var s secrets
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s = secrets{JWTKeys: auth.GenerateKey(), SecretKeys: auth.GenerateSecret()}
		if b, err = json.MarshalIndent(s, "", "  "); err != nil {
			return c, err
		}
		if err := os.MkdirAll(c.DataDir, 0o755); err != nil {
			return c, fmt.Errorf("keep secrets: %w", err)
		}
		err := keep(file, append(b, '\n'))
		if errors.Is(err, fs.ErrExist) { // another program was first
			return c.withSecrets()
		}
		if err != nil {
			return c, fmt.Errorf("keep secrets: %w", err)
		}
	case err != nil:
		return c, fmt.Errorf("read secrets: %w", err)
	default:
		if err := json.Unmarshal(b, &s); err != nil {
			return c, fmt.Errorf("read secrets: %s: %w; remove it to have new ones made", file, err)
		}
	}
	if c.JWTKeys == "" {
		c.JWTKeys = s.JWTKeys
	}
	if c.SecretKeys == "" {
		c.SecretKeys = s.SecretKeys
	}
	return c, nil
}

// keep writes a file that only its owner reads, whole or not at all. It fails with fs.ErrExist where there is one.
func keep(file string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*") // of mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), file)
}
