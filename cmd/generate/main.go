// Command generate makes what follows from the schema files, in the module that it is run in. It is a tool of the
// build, and no part of the program.
//
//	generate                                                     generated code, and the next migration
//	generate entity -name Task -fields "title:string done:bool"  a new schema file
//	generate migration -name add_search                          a migration to be written by hand
//
// It imports codegen alone.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"godstack/internal/codegen"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run executes a command and prints the files that are now to be looked at.
func run(args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return codegen.Generate("godstack", stdout)
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	name := flags.String("name", "", "the `name` of what is made")
	fields := flags.String("fields", "", "its fields as `name:type ...`: "+codegen.FieldTypes)
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: put the fields in quotes", flags.Arg(0))
	}
	var file string
	var err error
	switch args[0] {
	case "entity":
		file, err = codegen.NewEntity("godstack", *name, *fields)
	case "migration":
		file, err = codegen.NewMigration(*name)
	default:
		err = errors.New("generate takes no argument, or one of entity and migration")
	}
	if err == nil {
		fmt.Fprintln(stdout, "wrote", file)
	}
	return err
}
