// A health check: is the file that a service saves its data to whole and recent? Here the dump of Redis.
//
// `args` in group.toml: `file` is the dump, `max_age_s` how old it may be.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// What the exit code says of a service; the last line of the output is the message.
const (
	ok = iota
	warning
	critical
	unknown
)

// What stands on standard input. There is more: context, config, members.
type told struct {
	Args struct {
		File    string `json:"file"`
		MaxAgeS int64  `json:"max_age_s"`
	} `json:"args"`
}

func main() {
	code, message := run()
	fmt.Println(message)
	os.Exit(code)
}

func run() (int, string) {
	// The first argument is the hook that is called: one command may be several.
	if len(os.Args) < 2 || os.Args[1] != "health-check" {
		return unknown, "this is a health check and nothing else"
	}
	var told told
	if err := json.NewDecoder(os.Stdin).Decode(&told); err != nil {
		return unknown, fmt.Sprintf("standard input: %v", err)
	}
	if told.Args.File == "" {
		return unknown, "`args` needs `file`, the dump to look at"
	}
	return check(told.Args.File, time.Duration(told.Args.MaxAgeS)*time.Second)
}

func check(path string, maxAge time.Duration) (int, string) {
	file, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return critical, fmt.Sprintf("%s is not there: nothing was ever saved", path)
	case err != nil:
		// Where no grant opens the path, there is no folder to look into.
		return unknown, fmt.Sprintf("may not read %s: `[hooks.health-check]` in group.toml needs  allow = { read = [%q] }", path, path)
	}
	defer file.Close()
	head := make([]byte, 5)
	if _, err := file.Read(head); err != nil || string(head) != "REDIS" {
		return critical, fmt.Sprintf("%s is no dump of Redis", path)
	}
	info, err := file.Stat()
	if err != nil {
		return unknown, err.Error()
	}
	age := time.Since(info.ModTime()).Round(time.Second)
	if maxAge > 0 && age > maxAge {
		return warning, fmt.Sprintf("%s was saved %v ago", path, age)
	}
	return ok, fmt.Sprintf("%d bytes, saved %v ago", info.Size(), age)
}
