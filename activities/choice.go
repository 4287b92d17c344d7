package activities

import (
	"fmt"
	"strings"
)

// Choice says how the checkpoint that became the model was chosen.
type Choice struct {
	Epoch   int    `json:"epoch"`             // whose checkpoint it is, 1-based; 0: the run ended before
	Trained int    `json:"trained"`           // epochs that were trained
	Planned int    `json:"planned"`           // epochs that the recipe asks for
	Metric  string `json:"metric,omitempty"`  // the best epoch by it was taken; "": the last one, whatever its figures
	Sealed  bool   `json:"sealed,omitempty"`  // epochs were evaluated on the validation share, and the test share only once
	Stopped string `json:"stopped,omitempty"` // how it came that fewer were trained than planned
}

// String says it in sentences, for a run's page and a model's card.
func (c Choice) String() string {
	var b strings.Builder
	if c.Sealed {
		b.WriteString("Each epoch was evaluated on the validation share, and the test share once, with the chosen checkpoint.")
	} else {
		b.WriteString("The held-out test share was evaluated after each epoch.")
	}
	switch {
	case c.Epoch == 0: // no model came of it
	case c.Metric == "":
		fmt.Fprintf(&b, " The last checkpoint (epoch %d) was taken, whatever its figures.", c.Epoch)
	case c.Sealed:
		fmt.Fprintf(&b, " The checkpoint of epoch %d, the best by %s, was taken.", c.Epoch, c.Metric)
	default:
		fmt.Fprintf(&b, " The checkpoint of epoch %d, the best by %s, was taken; chosen by these very rows, its figures flatter it.", c.Epoch, c.Metric)
	}
	if c.Trained < c.Planned {
		fmt.Fprintf(&b, " Training was stopped %s after %d of %d epochs.", c.Stopped, c.Trained, c.Planned)
	}
	return b.String()
}
