// Elements without a framework.

type Child = Node | string | undefined;

/** Makes an element: properties that exist are set, the rest become attributes. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Record<string, unknown> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (name.startsWith('on') && typeof value === 'function') {
      made.addEventListener(name.slice(2), value as EventListener);
    } else if (name in made && !name.includes('-')) {
      Reflect.set(made, name, value);
    } else {
      made.setAttribute(name, String(value));
    }
  }
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

/** Sets text only where it differs, so that screen readers do not announce it twice. */
export function setText(target: HTMLElement, text: string): void {
  if (target.textContent !== text) target.textContent = text;
}

/** A host name or an address as text that may break after its dots and slashes, and nowhere else. */
export function breakable(text: string): Node[] {
  return text.split(/(?<=[./])(?=[^./])/).flatMap((part, index) => [...(index > 0 ? [element('wbr')] : []), document.createTextNode(part)]);
}

const SVG = 'http://www.w3.org/2000/svg';

/** Line drawings on a 24 by 24 grid. */
const PATHS = {
  user: 'M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM4.5 20.5c.8-3.6 3.8-6 7.5-6s6.7 2.4 7.5 6',
  key: 'M14.5 14a5 5 0 1 0-4.7-3.3L3.5 17v3.5H7V18h2.5v-2.5l1.3-1.3a5 5 0 0 0 3.7-.2ZM16 8.5h.01',
  flame: 'M12 21a6.5 6.5 0 0 0 6.5-6.5c0-4.5-4-5.5-4.5-10.5-3 1.5-4.5 4-4.5 6.5-1-.5-1.5-1.5-1.5-2.5-1.5 1.5-2.5 4-2.5 6.5A6.5 6.5 0 0 0 12 21Z',
  clock: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 7.5V12l3 2',
  warning: 'M12 4 2.5 20h19ZM12 10v4.5M12 17.3h.01',
  check: 'M4.5 12.5l5 5 10-11',
  cross: 'M6 6l12 12M18 6 6 18',
  paste: 'M9 4.5H6.5A1.5 1.5 0 0 0 5 6v13.5A1.5 1.5 0 0 0 6.5 21h11a1.5 1.5 0 0 0 1.5-1.5V6a1.5 1.5 0 0 0-1.5-1.5H15M9 3h6v3.5H9ZM8.5 11.5h7M8.5 15.5h5',
  screen: 'M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5',
  lock: 'M6.5 11h11A1.5 1.5 0 0 1 19 12.5v7a1.5 1.5 0 0 1-1.5 1.5h-11A1.5 1.5 0 0 1 5 19.5v-7A1.5 1.5 0 0 1 6.5 11ZM8 11V7.5a4 4 0 0 1 8 0V11',
  tool: 'M4 5.5h16v13H4ZM7.5 9.5l3 2.5-3 2.5M12.5 15h4',
  external: 'M14 4h6v6M20 4l-9 9M18 14v4.5a1.5 1.5 0 0 1-1.5 1.5h-11A1.5 1.5 0 0 1 4 18.5v-11A1.5 1.5 0 0 1 5.5 6H10',
  desktop: 'M3.5 5h17v11h-17ZM12 16v4M8.5 20h7',
  copy: 'M9 9h11v11H9ZM15 9V4H4v11h5',
  menu: 'M4 7h16M4 12h16M4 17h16',
} as const;

export type IconName = keyof typeof PATHS;

export function icon(name: IconName): SVGSVGElement {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}

/** Anteroom's mark. */
export function mark(): SVGSVGElement {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 32 32');
  svg.setAttribute('class', 'mark');
  svg.setAttribute('aria-hidden', 'true');
  for (const [part, d] of [
    ['frame', 'M8 26V7.5A1.5 1.5 0 0 1 9.5 6h13A1.5 1.5 0 0 1 24 7.5V26M5.5 26.2h21'],
    ['door', 'M13 26V11.4a1 1 0 0 1 .7-.95L20.7 8.3a1 1 0 0 1 1.3.95V26z'],
  ] as const) {
    const path = document.createElementNS(SVG, 'path');
    path.setAttribute('class', part);
    path.setAttribute('d', d);
    svg.append(path);
  }
  return svg;
}
