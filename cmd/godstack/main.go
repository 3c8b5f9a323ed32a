// Command godstack is the program: it serves, works jobs, migrates, seeds, makes accounts, asks another one how it is, and examines a
// deployment.
//
// It is the only place that reads flags and the environment; app does the rest.
package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"godstack/internal/app"
	"godstack/internal/auth"
	"godstack/internal/viewer"
)

func main() {
	signalled, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	context.AfterFunc(signalled, func() {
		stop() // a second signal kills at once, and so before anything is seen of the first
		cancel()
	})
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run executes a command and returns the exit code. It stops gracefully when ctx is done.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root := command(environ)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(stderr, "godstack:", err)
		return 1
	}
	return 0
}

// command builds the command line over one environment.
func command(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use:           "godstack",
		Short:         "A real-time application: one schema file in, a live GraphQL API out",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	// configured makes a command's function of one that takes the program's configuration.
	configured := func(f func(cmd *cobra.Command, cfg app.Config) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(environ)
			if err != nil {
				return fmt.Errorf("environment: %w", err)
			}
			c := cfg.app(newLogger(cfg, cmd.ErrOrStderr()))
			if info, ok := debug.ReadBuildInfo(); ok {
				c.Version = info.Main.Version
			}
			return f(cmd, c)
		}
	}
	var seed, noWork bool
	serve := &cobra.Command{
		Use:   "serve",
		Short: "Serve the API, the playground and the health checks until a signal comes",
		Args:  cobra.NoArgs,
		RunE: configured(func(cmd *cobra.Command, cfg app.Config) error {
			cfg.Seed = seed
			if noWork {
				cfg.Role = app.RoleServe
			}
			a, err := app.Start(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			banner := fmt.Sprintf("GraphQL     %s/graphql\nPlayground  %[1]s/playground/\n", a.URL())
			if cfg.PublicURL != "" {
				banner = fmt.Sprintf("Listening   %s\n", a.Addr()) + banner
			}
			cmd.Print(banner)
			return a.Wait()
		}),
	}
	serve.Flags().BoolVar(&seed, "seed", false, "fill an empty database with demonstration data first (development)")
	serve.Flags().BoolVar(&noWork, "no-work", false, "work no jobs: other nodes do, by godstack work")
	root.AddCommand(
		serve,
		workCommand(configured),
		userCommand(configured),
		healthyCommand(configured),
		doctorCommand(environ),
		&cobra.Command{
			Use:   "migrate",
			Short: "Bring the database's schema up to date",
			Args:  cobra.NoArgs,
			RunE: configured(func(cmd *cobra.Command, cfg app.Config) error {
				applied, err := app.Migrate(cmd.Context(), cfg)
				if err != nil {
					return err
				}
				cmd.Printf("%d migrations applied\n", applied)
				return nil
			}),
		},
		&cobra.Command{
			Use:   "seed",
			Short: "Fill an empty database with demonstration data",
			Args:  cobra.NoArgs,
			RunE:  configured(func(cmd *cobra.Command, cfg app.Config) error { return app.Seed(cmd.Context(), cfg) }),
		},
		&cobra.Command{
			Use:   "version",
			Short: "Print what was built",
			Args:  cobra.NoArgs,
			Run: func(cmd *cobra.Command, _ []string) {
				info, _ := debug.ReadBuildInfo()
				cmd.Println(version(info))
			},
		},
	)
	return root
}

// workCommand is the command that works jobs.
func workCommand(configured func(func(*cobra.Command, app.Config) error) func(*cobra.Command, []string) error) *cobra.Command {
	return &cobra.Command{
		Use:   "work",
		Short: "Work jobs, and serve nothing but /metrics, /healthz and /readyz on METRICS_ADDR, until a signal comes",
		Args:  cobra.NoArgs,
		RunE: configured(func(cmd *cobra.Command, cfg app.Config) error {
			cfg.Role = app.RoleWork
			a, err := app.Start(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			if a.Addr() != nil {
				cmd.Printf("Listening   %s\n", a.Addr())
			}
			cmd.Println("Working jobs")
			return a.Wait()
		}),
	}
}

// userCommand is the command that makes accounts.
func userCommand(configured func(func(*cobra.Command, app.Config) error) func(*cobra.Command, []string) error) *cobra.Command {
	var (
		u     app.NewUser
		admin bool
	)
	create := &cobra.Command{
		Use:   "create",
		Short: "Create an account; the password is the first line of the standard input",
		Args:  cobra.NoArgs,
		RunE: configured(func(cmd *cobra.Command, cfg app.Config) error {
			line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 1<<10)).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read password: %w", err)
			}
			if u.Password = strings.TrimRight(line, "\r\n"); u.Password == "" {
				return errors.New("the standard input has no password")
			}
			if admin {
				u.Role = viewer.Admin
			}
			id, err := app.CreateUser(cmd.Context(), cfg, u)
			if err != nil {
				return err
			}
			cmd.Println(id)
			return nil
		}),
	}
	create.Flags().StringVar(&u.Email, "email", "", "mail address")
	create.Flags().StringVar(&u.Username, "username", "", "user name, to sign in with as well")
	create.Flags().StringVar(&u.Name, "name", "", "name to show; the user name by default")
	create.Flags().BoolVar(&admin, "admin", false, "make an administrator")
	for _, name := range []string{"email", "username"} {
		if err := create.MarkFlagRequired(name); err != nil {
			panic(err) // there is no such flag
		}
	}
	user := &cobra.Command{Use: "user", Short: "Manage accounts"}
	user.AddCommand(create)
	return user
}

// healthyCommand is the command that asks a program that serves how it is: images without a shell have nothing else to do so.
func healthyCommand(configured func(func(*cobra.Command, app.Config) error) func(*cobra.Command, []string) error) *cobra.Command {
	var (
		addr  string
		ready bool
	)
	healthy := &cobra.Command{
		Use:   "healthy",
		Short: "Ask the program that serves whether it runs; exit with 1 where it does not answer within 5 s",
		Args:  cobra.NoArgs,
		RunE: configured(func(cmd *cobra.Command, cfg app.Config) error {
			line, err := app.Healthy(cmd.Context(), cmp.Or(addr, cfg.Addr), ready)
			if err != nil {
				return err
			}
			cmd.Println(line)
			return nil
		}),
	}
	healthy.Flags().StringVar(&addr, "addr", "", "where it listens; ADDR by default")
	healthy.Flags().BoolVar(&ready, "ready", false, "ask whether it serves: its database answers, and the change log is being read")
	return healthy
}

// newLogger logs for people in development and for machines in production.
func newLogger(cfg config, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slog.Level(cfg.LogLevel), ReplaceAttr: auth.Redact}
	if cfg.Env == production {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// version tells the module's version, the commit and the toolchain, as far as the build knows them.
func version(info *debug.BuildInfo) string {
	if info == nil {
		return "godstack, of an unknown build"
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	out := "godstack " + info.Main.Version
	if commit := settings["vcs.revision"]; commit != "" {
		out += ", commit " + commit
		if settings["vcs.modified"] == "true" {
			out += " with changes"
		}
		out += " of " + settings["vcs.time"]
	}
	return out + ", " + info.GoVersion
}
