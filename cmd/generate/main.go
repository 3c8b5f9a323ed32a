package main

import (
	"log"
	"os"

	"godstack/internal/codegen"
)

func main() {
	if err := codegen.Generate("godstack", os.Stdout); err != nil {
		log.Fatal(err)
	}
}
