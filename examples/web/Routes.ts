/**
 * All of the application but the server and the store: a file for each page.
 */
import { Layer } from "effect"
import * as Counter from "./Counter.ts"
import * as Devices from "./Devices.ts"
import * as LogIn from "./LogIn.ts"
import * as LogOut from "./LogOut.ts"
import * as Source from "./Source.ts"

export const Routes = Layer.mergeAll(LogIn.Routes, Counter.Routes, Devices.Routes, LogOut.Routes, Source.Routes)
