package enforce

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// copyAttributes gives the file at path the extended attributes of the one at from:
// ACLs and labels, which say who may read it.
func copyAttributes(from, path string) error {
	names := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := syscall.Listxattr(from, names)
	if errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: attributes: %w", from, err)
	}
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		n, err := syscall.Getxattr(from, name, value)
		if err == nil {
			err = syscall.Setxattr(path, name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("%s: attribute %s: %w", path, name, err)
		}
	}
	return nil
}
