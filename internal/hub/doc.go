// Package hub reads models and data sets from the Hugging Face hub, or from a server that speaks its public HTTP
// protocol.
//
// [Client.Model] and [Client.Dataset] turn a URI into local files. A revision is resolved once to a commit; all bytes
// are those of that commit, checked by size and digest against what the hub states, and cached by digest, so that the
// same revision costs nothing the second time and works without a network. Downloads resume where they were cut, in
// this process or the next one, and any number of processes may share a cache.
//
// Only data is fetched: safetensors, tokenizer files, Parquet. Code and pickles are never downloaded.
//
// The token goes to the endpoint's own host and nowhere else; which repositories may be read and which hosts may serve
// them is the worker's configuration, not the caller's. Errors are of type [*Error] and never contain the query of a
// URL, which on the hub's storage hosts is a credential.
package hub
