// Package workflows chains the activities of a fine-tune. It is deterministic: no clock, no network, no randomness, no
// environment; whatever needs them is an activity. [FineTune] reads as the table of contents of a run; its steps are in
// steps.go, and how each kind of activity is timed and retried is in policies.go.
package workflows
