package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// reorder moves options in front of operands, and global options in front of the command: urfave/cli stops at the first
// operand, and people write `mount NAME DIR --size 10G` and `status --json`. What it does not know it leaves in place
// for the parser to complain about.
func reorder(app *cli.App, args []string) []string {
	globals, options, operands := []string{}, []string{}, []string{}
	var cmd *cli.Command
	rest := args[1:]
	for i := 0; i < len(rest); i++ {
		a := rest[i]
		switch {
		case a == "--":
			operands = append(operands, rest[i:]...)
			i = len(rest)
		case len(a) > 1 && a[0] == '-':
			list := &options
			f := find(flagsOf(cmd), a)
			if f == nil {
				if f = find(app.Flags, a); f != nil {
					list = &globals
				}
			}
			*list = append(*list, a)
			if takesValue(f) && !strings.Contains(a, "=") && i+1 < len(rest) {
				i++
				*list = append(*list, rest[i])
			}
		case cmd == nil:
			if cmd = app.Command(a); cmd == nil {
				operands = append(operands, rest[i:]...)
				i = len(rest)
			}
		default:
			operands = append(operands, a)
		}
	}
	out := append([]string{args[0]}, globals...)
	if cmd != nil {
		out = append(out, cmd.Name)
	}
	return slices.Concat(out, options, operands)
}

func flagsOf(cmd *cli.Command) []cli.Flag {
	if cmd == nil {
		return nil
	}
	return cmd.Flags
}

func find(flags []cli.Flag, arg string) cli.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}
