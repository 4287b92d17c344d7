// Package loadtest sends requests at a stated rate and measures how long their senders would have waited.
//
// The load is open: requests arrive by a clock, whether or not earlier ones were answered, as they do from many
// independent users. A latency runs from the moment a request was meant to arrive to its answer, time in the queue
// included, so that a stall counts for everyone who would have met it (no coordinated omission). What arrives in the
// warm-up is answered and not counted. Arrivals and texts are functions of the seed alone.
//
// Latencies are kept in an HDR histogram of three significant digits, in microseconds.
package loadtest
