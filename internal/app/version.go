package app

import (
	"fmt"
	"runtime/debug"
)

// shortVersion is the version as it is listed: the commit where there is no
// release.
func shortVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && info.Main.Version == "(devel)" {
			return s.Value[:min(12, len(s.Value))]
		}
	}
	return info.Main.Version
}

// Version names the build: the module's version, or the commit it was built
// from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "vedetta (unknown build)"
	}
	version, commit, dirty := info.Main.Version, "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = ", modified"
			}
		}
	}
	if commit == "" {
		return fmt.Sprintf("vedetta %s, %s", version, info.GoVersion)
	}
	return fmt.Sprintf("vedetta %s (%s%s), %s", version, commit, dirty, info.GoVersion)
}
