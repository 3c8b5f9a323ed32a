package app

import "godstack/internal/record"

// customRules are the access rules written in Go, under the names that schema files give them in entity.Custom: add yours
// here. docs/access.md shows one.
var customRules = map[string]record.CustomRule{}
