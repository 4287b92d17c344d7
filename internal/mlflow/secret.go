package mlflow

import "log/slog"

// redacted stands wherever a secret would have been printed.
const redacted = "[redacted]"

// Secret is a string that formats, logs and encodes as "[redacted]". [Secret.Reveal] returns the value.
type Secret struct{ value string }

// NewSecret wraps a value.
func NewSecret(value string) Secret { return Secret{value: value} }

// Reveal returns the value; call it only where it is sent.
func (s Secret) Reveal() string { return s.value }

// IsZero reports whether there is no value.
func (s Secret) IsZero() bool { return s.value == "" }

// String never returns the value.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// GoString never returns the value.
func (s Secret) GoString() string { return s.String() }

// LogValue never returns the value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText never returns the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
