// Package plot draws the pictures of a run: curves of the training, and what the test rows and the load test say.
//
// Every picture has an opaque white ground, so that it reads the same on a light and on a dark page, and colours that
// people with any colour vision can tell apart (Okabe and Ito's). Data that a picture cannot show (one class only,
// no rows, values that are not finite) makes a picture that says so, not an error.
package plot
