package app

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestUseHugePages(t *testing.T) {
	const size = 64 << 20
	useHugePages(size)
	// Asked again, it finds memory that is advised already.
	if got := advisedHuge(t); got < size {
		t.Errorf("advised %d MiB, want about %d", got>>20, size>>20)
	}
}

// advisedHuge returns how many bytes of this process's memory may lie in huge
// pages because it asked (proc(5), VmFlags "hg" of /proc/pid/smaps).
func advisedHuge(t *testing.T) (sum int) {
	if _, err := os.Stat("/sys/kernel/mm/transparent_hugepage"); err != nil {
		t.Skip("this kernel has no transparent huge pages")
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var kib int
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		switch fields := strings.Fields(lines.Text()); fields[0] {
		case "Size:":
			if kib, err = strconv.Atoi(fields[1]); err != nil {
				t.Fatal(err)
			}
		case "VmFlags:":
			if slices.Contains(fields, "hg") {
				sum += kib << 10
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return sum
}
