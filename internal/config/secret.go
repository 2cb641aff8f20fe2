package config

import "log/slog"

// A Secret prints, logs and marshals as "<secret>". Convert it to string to
// use it.
type Secret string

const hidden = "<secret>"

func (Secret) String() string               { return hidden }
func (Secret) GoString() string             { return hidden }
func (Secret) LogValue() slog.Value         { return slog.StringValue(hidden) }
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// MarshalYAML keeps a secret out of a printed configuration.
func (Secret) MarshalYAML() (any, error) { return hidden, nil }
