package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"everything"}, "generate takes no argument, or one of entity and migration"},
		{[]string{"entity"}, `"" is no name for an entity`},
		{[]string{"entity", "-name", "Task", "title:string"}, `unexpected argument "title:string": put the fields in quotes`},
		{[]string{"migration", "-name", "Add Search"}, `"Add Search" is no name for a migration`},
		{[]string{"migration", "-title", "x"}, "flag provided but not defined: -title"},
	} {
		require.ErrorContains(t, run(c.args, t.Output()), c.want)
	}
}
