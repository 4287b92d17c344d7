package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/temporal"
)

// transient reports whether the server may answer if asked again: the stack restarts it when it dies, and an overloaded one
// is late or even takes its own namespace for missing.
func transient(err error) bool {
	var (
		away    *serviceerror.Unavailable
		late    *serviceerror.DeadlineExceeded
		busy    *serviceerror.ResourceExhausted
		nowhere *serviceerror.NamespaceNotFound
	)
	return errors.As(err, &away) || errors.As(err, &late) || errors.As(err, &busy) || errors.As(err, &nowhere) ||
		errors.Is(err, context.DeadlineExceeded)
}

// printFailure says plainly why a workflow did not complete: in which activity, of what type, the message, the details.
func printFailure(out io.Writer, err error) {
	var (
		app        *temporal.ApplicationError
		act        *temporal.ActivityError
		timeout    *temporal.TimeoutError
		canceled   *temporal.CanceledError
		terminated *temporal.TerminatedError
	)
	where := "the run"
	if errors.As(err, &act) {
		where = act.ActivityType().GetName()
	}
	switch {
	case errors.As(err, &app):
		fmt.Fprintf(out, "FAILED in %s: %s\n  %s\n", where, app.Type(), strings.ReplaceAll(app.Message(), "\n", "\n  "))
		var details json.RawMessage
		if app.HasDetails() && app.Details(&details) == nil {
			fmt.Fprintln(out, pretty(details))
		}
	case errors.As(err, &terminated):
		fmt.Fprintln(out, "TERMINATED")
	case errors.As(err, &canceled):
		fmt.Fprintln(out, "CANCELED")
	case errors.As(err, &timeout):
		fmt.Fprintf(out, "TIMED OUT: %s (%s)\n", where, timeout.TimeoutType())
	default:
		fmt.Fprintf(out, "FAILED: %v\n", err)
	}
}

// shorten keeps the first line of a text, n characters at the most.
func shorten(text string, n int) string {
	text, _, _ = strings.Cut(text, "\n")
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n-1]) + "…"
}
