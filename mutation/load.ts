// Loads all modules before the first test, so that what a mutant changes as a module is loaded belongs to no one test.
import "effect-sessions"
import "effect-sessions/http"
import "effect-sessions/testing"
