package train

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Real is a number that may be NaN or infinite, which JSON's numbers may not: it then stands there as a string.
type Real float32

// MarshalJSON writes a number, or "NaN", "+Inf" or "-Inf".
func (r Real) MarshalJSON() ([]byte, error) {
	text := strconv.FormatFloat(float64(r), 'g', -1, 32)
	if r-r != 0 { // neither NaN nor infinite is equal to itself, and their difference is NaN
		return json.Marshal(text)
	}
	return []byte(text), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Real) UnmarshalJSON(data []byte) error {
	text := string(data)
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
	}
	v, err := strconv.ParseFloat(text, 32)
	if err != nil {
		return fmt.Errorf("real number: %w", err)
	}
	*r = Real(v)
	return nil
}
