// Package check holds that the files in deploy are what their readers take: Kubernetes' own types, Compose's own loader, BuildKit's own
// parser.
//
// It is a module of its own, since what it needs is no part of the program: go -C deploy/check test ./...
package check
