// Colours of the pack's own sockets, and new nodes that are wide enough for their titles.
// Nothing here is needed: without it wires are grey and long titles end in dots.

import { app } from "../../../scripts/app.js";

const COLOURS = {
  FLOW_REWARD: "#f5b83d",
  FLOW_STRATEGY: "#3ecf8e",
  FLOW_NOISE_LAW: "#4fb3ff",
  FLOW_REPORT: "#d48bff",
  FLOW_GUIDANCE: "#8bd450",
  FLOW_ENCODER: "#ff8a65",
  FLOW_LANGUAGE_MODEL: "#f06292",
};
const BESIDE_TITLE = 90; // pixels that are not the title's: its dot, the corners, buttons

// The page clears the colours of types that a palette does not name, whenever a palette is loaded.
// So an empty value means ours, and a palette that names one of them still has its way.
function keep(colours, type, ours) {
  let chosen = "";
  Object.defineProperty(colours, type, {
    get: () => chosen || ours,
    set: (value) => {
      chosen = value;
    },
    enumerable: true,
    configurable: true,
  });
}

// Nodes 2.0 reads variables of the page; a palette sets them on the element, which wins over a sheet.
function styleSheet() {
  const lines = Object.entries(COLOURS).map(([type, colour]) => `--color-datatype-${type}: ${colour};`);
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(`:root { ${lines.join(" ")} }`);
  return sheet;
}

function titleWidth(node) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = node.titleFontStyle;
  return context.measureText(node.title).width;
}

app.registerExtension({
  name: "flowsearch.appearance",

  setup() {
    document.adoptedStyleSheets.push(styleSheet());
    for (const [type, colour] of Object.entries(COLOURS)) {
      keep(app.canvas.constructor.link_type_colors, type, colour);
      keep(app.canvas.default_connection_color_byType, type, colour);
    }
  },

  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("FlowSearch")) return;
    const width = Math.ceil(titleWidth(node)) + BESIDE_TITLE;
    if (node.size[0] < width) node.setSize([width, node.size[1]]);
  },
});
