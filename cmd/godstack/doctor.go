package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"godstack/internal/app"
)

// doctorCommand is the command that examines a deployment. What is wrong with the environment is a check that failed, and not the end.
func doctorCommand(environ []string) *cobra.Command {
	var (
		e      app.Examination
		asJSON bool
	)
	doctor := &cobra.Command{
		Use:   "doctor",
		Short: "Examine a deployment: its settings, database, wake-ups, Redis, mail, jobs; exit with 1 where a check fails",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if e.Nodes < 0 {
				return fmt.Errorf("--nodes: %d is no number of nodes", e.Nodes)
			}
			checks := examine(cmd, environ, e)
			write := writeChecks
			if asJSON {
				write = writeJSON
			}
			if err := write(cmd.OutOrStdout(), checks); err != nil {
				return err
			}
			if n := count(checks, app.CheckFail); n > 0 {
				return fmt.Errorf("%d checks failed", n)
			}
			return nil
		},
	}
	doctor.Flags().BoolVar(&asJSON, "json", false, "write one JSON object")
	doctor.Flags().StringVar(&e.MailTo, "mail-to", "", "send a mail to this address")
	doctor.Flags().IntVar(&e.Nodes, "nodes", 0, "for how many nodes there have to be connections; those that run by default")
	return doctor
}

func examine(cmd *cobra.Command, environ []string, e app.Examination) []app.Check {
	cfg, err := loadConfig(environ)
	if err == nil {
		return app.Examine(cmd.Context(), cfg.app(newLogger(cfg, io.Discard)), e)
	}
	var checks []app.Check
	for line := range strings.SplitSeq(err.Error(), "\n") {
		checks = append(checks, app.Check{
			Name: "environment", Status: app.CheckFail, Found: line, Do: "write it as docs/configuration.md says; the rest is looked at then",
		})
	}
	return checks
}

func count(checks []app.Check, status app.CheckStatus) (n int) {
	for _, c := range checks {
		if c.Status == status {
			n++
		}
	}
	return n
}

// writeChecks writes a line a check.
func writeChecks(w io.Writer, checks []app.Check) error {
	var all error
	for _, c := range checks {
		line := fmt.Sprintf("%-5s %-28s %s", c.Status, c.Name, c.Found)
		if c.Do != "" {
			line += ": " + c.Do
		}
		_, err := fmt.Fprintln(w, line)
		all = errors.Join(all, err)
	}
	return all
}

// writeJSON writes how often there is which status, and the checks.
func writeJSON(w io.Writer, checks []app.Check) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(struct {
		OK     int         `json:"ok"`
		Warn   int         `json:"warn"`
		Fail   int         `json:"fail"`
		Checks []app.Check `json:"checks"`
	}{count(checks, app.CheckOK), count(checks, app.CheckWarn), count(checks, app.CheckFail), checks})
}
