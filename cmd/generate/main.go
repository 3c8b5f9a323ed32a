package main

import (
	"log"

	"godstack/internal/codegen"
)

func main() {
	if err := codegen.Generate("godstack"); err != nil {
		log.Fatal(err)
	}
}
