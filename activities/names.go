package activities

// Task queues. Workflows and the activities of [CPU] share one; the activities of [GPU] have one slot a device.
const (
	Queue    = "finetune"
	GPUQueue = "finetune-gpu"
)

// Error types on the wire. Callers branch on these, never on an error's text.
const (
	TypeInvalidRecipe       = "InvalidRecipe"       // the recipe; details list every problem
	TypeResumeRefused       = "ResumeRefused"       // resume_from names what this recipe cannot go on from
	TypeDatasetInvalid      = "DatasetInvalid"      // the data; the message names file, row and column
	TypeModelIncompatible   = "ModelIncompatible"   // the base model; the message names file and tensor or field
	TypeArtifactMissing     = "ArtifactMissing"     // an object of the run is gone
	TypeArtifactCorrupt     = "ArtifactCorrupt"     // retried: a download that does not match its digest
	TypeStoreUnavailable    = "StoreUnavailable"    // retried
	TypeStoreDenied         = "StoreDenied"         // the store refuses the worker's credentials
	TypeTrackingUnavailable = "TrackingUnavailable" // retried
	TypeTrackingRejected    = "TrackingRejected"    // MLflow refuses the request
	TypeHubUnavailable      = "HubUnavailable"      // retried
	TypeDeviceOutOfMemory   = "DeviceOutOfMemory"   // the workflow halves the micro-batch
	TypeDeviceLost          = "DeviceLost"          // retried, by a new worker process
	TypeLibtorchMissing     = "LibtorchMissing"     // the worker has no libtorch
	TypeLossNotFinite       = "LossNotFinite"       // details name the step and its rows
	TypeWorkerLost          = "WorkerLost"          // retried: the worker process died, and its successor handed the work back
	TypeInterrupted         = "Interrupted"         // retried: the worker is shutting down and has checkpointed
	TypeNoProgress          = "NoProgress"          // three attempts from the same step, or at the same work without steps, failed
	TypeExamplesFailed      = "ExamplesFailed"      // the trained model misses a labelled example
	TypeLoadTestFailed      = "LoadTestFailed"      // the logged model misses a limit of the load test
	TypeForkByReset         = "ForkByReset"         // another workflow run owns this run's MLflow run
	TypeTimeLimit           = "TimeLimit"           // limits.max_wall_time is over
)

// Final states of an MLflow run.
const (
	RunFinished = "FINISHED"
	RunFailed   = "FAILED"
	RunKilled   = "KILLED"
)
