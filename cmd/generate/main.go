package main

import (
	"log"

	"godstack/internal/codegen"
)

func main() {
	if err := codegen.Generate(codegen.Config{Module: "godstack"}); err != nil {
		log.Fatal(err)
	}
}
