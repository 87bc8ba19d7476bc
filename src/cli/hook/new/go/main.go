// The hook `@HOOK@`, as a WASI command.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// What stands on standard input. There is more: config, members, and what the hook itself takes.
type told struct {
	Hook    string          `json:"hook"`
	Args    json.RawMessage `json:"args"`
	Context struct {
		Group  string `json:"group"`
		Reason string `json:"reason"`
	} `json:"context"`
}

func main() {
	var told told
	if err := json.NewDecoder(os.Stdin).Decode(&told); err != nil {
		// An exit code that is not 0: it could not be done, and the last line says why.
		fmt.Printf("standard input: %v\n", err)
		os.Exit(3)
	}
	fmt.Printf("%s: %s of %s, args %s\n", told.Context.Reason, told.Hook, told.Context.Group, told.Args)
	// The last line is the answer.
	fmt.Println("@ANSWER@")
}
