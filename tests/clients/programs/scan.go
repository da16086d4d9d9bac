package main

import (
	"fmt"
	"net/smtp"
	"os"
)

func main() {
	message, err := os.ReadFile("message.eml")
	if err == nil {
		// RECIPE
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
