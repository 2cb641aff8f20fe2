// The panel program is the commands of fake panels, by the names under which
// it is called. A customer's state is in a directory of its own below the
// program's, and the server's in "server".
package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/vedetta-watch/vedetta/enforce/paneltest"
)

func main() {
	customer := "server"
	for _, arg := range os.Args[1:] {
		if name, ok := strings.CutPrefix(arg, "--user="); ok {
			customer = filepath.Base(name)
		}
	}
	os.Args[0] = filepath.Join(filepath.Dir(os.Args[0]), customer, filepath.Base(os.Args[0]))
	if !paneltest.Act() {
		os.Exit(2)
	}
}
