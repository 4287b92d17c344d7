// Package stack runs everything Duratune needs on one machine: a Temporal dev server, an S3 gateway, MLflow, and the
// workers, each a child process that is started again when it dies. All of it listens on 127.0.0.1 only.
//
// An instance is a state folder: databases, objects, logs, worker binaries, and the file that holds its ports and the
// credentials made for it. [Start] runs an instance in the calling process, until [Stack.Stop]; the [Stack] it returns
// signals, halts and resumes single processes. [Up] runs the same in a process of its own that outlives the caller
// (the program must then answer its [SuperviseVerb] with [Supervise]), and [Down] ends that one.
//
// Which processes belong to an instance is decided by a marker in their environment, never by a remembered process id:
// an id may have gone to another process meanwhile. That a supervisor lives is decided by the lock that it holds.
package stack
