// Package mlflow talks to an MLflow 3 tracking server over REST, and writes model directories that Python's
// mlflow.transformers and mlflow.pyfunc load as their own.
//
// # Identity
//
// MLflow hands out ids itself, so a create that is sent twice makes two things. Every Ensure method therefore writes
// the caller's key as the tag [KeyTag] in the very body that creates the row, and searches for that tag first: rows
// and keys commit together, and a caller that dies between create and reply finds its row again. Search-then-create
// is not atomic; after a create the method searches once more, keeps the oldest and deletes only what it made itself.
//
// # Repeats
//
// All methods may be repeated after an error. Params, time stamps and keys must be equal in every attempt: a new time
// stamp for the same step is a second point, and another value for a param is refused by the server.
//
// # Errors
//
// A failed request is an [*Error] that is either [ErrUnavailable] (passing: the network, 408, 429, 5xx) or
// [ErrRejected] (for good), and [ErrNotFound] besides where the thing does not exist. The client repeats passing
// failures a few times within about two seconds; anything longer belongs to the caller. A cancelled context is
// returned as such. No error, log line or URL in it carries user info, a query string or a header.
//
// # Versions
//
// Written against MLflow 3.17.2; its suite was also run on a server of 3.1.4.
package mlflow
