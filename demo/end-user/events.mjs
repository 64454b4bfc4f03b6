// What the scripted end users print, and how they wait.

/** Prints what happened, and when, as a line of JSON. */
export const say = (event, more = {}) => process.stdout.write(`${JSON.stringify({ event, at_ms: Date.now(), ...more })}\n`);

export const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
